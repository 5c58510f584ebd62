// A label for any object: a fragment on the interface Node.
import { graphql, useFragment } from 'react-relay';

import type { NodeLabel_node$key } from './__generated__/NodeLabel_node.graphql';

export function NodeLabel({ node }: { node: NodeLabel_node$key }): React.JSX.Element {
  const data = useFragment(
    graphql`
      fragment NodeLabel_node on Node {
        __typename
        id
        ... on Server {
          name
        }
        ... on Volume {
          name
        }
      }
    `,
    node,
  );
  return <b title={`${data.__typename} ${data.id}`}>{data.name ?? data.id}</b>;
}
