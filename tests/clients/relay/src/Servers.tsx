// A table of servers that loads page by page (`@connection`) and can be asked anew with another filter
// (`@refetchable`).
import { graphql, useLazyLoadQuery, usePaginationFragment } from 'react-relay';

import { ServerRow } from './ServerRow';
import type { ServersPageQuery } from './__generated__/ServersPageQuery.graphql';
import type { ServersQuery } from './__generated__/ServersQuery.graphql';
import type { Servers_query$key } from './__generated__/Servers_query.graphql';

export function ServersPage(): React.JSX.Element {
  const query = useLazyLoadQuery<ServersQuery>(
    graphql`
      query ServersQuery($filter: ServerFilter) {
        ...Servers_query @arguments(filter: $filter)
      }
    `,
    { filter: null },
  );
  return <Servers query={query} />;
}

function Servers({ query }: { query: Servers_query$key }): React.JSX.Element {
  const { data, hasNext, isLoadingNext, loadNext, refetch } = usePaginationFragment<ServersPageQuery, Servers_query$key>(
    graphql`
      fragment Servers_query on Query
      @refetchable(queryName: "ServersPageQuery")
      @argumentDefinitions(
        count: { type: "Int", defaultValue: 20 }
        cursor: { type: "String" }
        filter: { type: "ServerFilter" }
      ) {
        servers(first: $count, after: $cursor, filter: $filter, orderBy: { field: CREATED_AT, direction: DESC })
          @connection(key: "Servers_servers") {
          totalCount
          edges {
            node {
              id
              ...ServerRow_server
            }
          }
        }
      }
    `,
    query,
  );
  return (
    <section>
      <h1>{data.servers.totalCount} servers</h1>
      <button onClick={() => refetch({ filter: { status: ['ACTIVE'] } })}>Only active ones</button>
      <ul>
        {data.servers.edges.map(({ node }) => (
          <ServerRow key={node.id} server={node} />
        ))}
      </ul>
      {hasNext && (
        <button disabled={isLoadingNext} onClick={() => loadNext(20)}>
          More
        </button>
      )}
    </section>
  );
}
