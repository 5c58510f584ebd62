// One server: its fragment can be asked anew by id, because Server is a Node; its job is followed as it changes.
import { useMemo } from 'react';
import { graphql, useFragment, useMutation, useRefetchableFragment, useSubscription } from 'react-relay';

import { NodeLabel } from './NodeLabel';
import type { ServerRowDeleteMutation } from './__generated__/ServerRowDeleteMutation.graphql';
import type { ServerRowJob_job$key } from './__generated__/ServerRowJob_job.graphql';
import type { ServerRowJobSubscription } from './__generated__/ServerRowJobSubscription.graphql';
import type { ServerRowQuery } from './__generated__/ServerRowQuery.graphql';
import type { ServerRow_server$key } from './__generated__/ServerRow_server.graphql';

export function ServerRow({ server }: { server: ServerRow_server$key }): React.JSX.Element {
  const [data, refetch] = useRefetchableFragment<ServerRowQuery, ServerRow_server$key>(
    graphql`
      fragment ServerRow_server on Server @refetchable(queryName: "ServerRowQuery") {
        id
        status
        addresses
        activeJob {
          id
          ...ServerRowJob_job
        }
        ...NodeLabel_node
      }
    `,
    server,
  );
  const [remove, removing] = useMutation<ServerRowDeleteMutation>(graphql`
    mutation ServerRowDeleteMutation($input: ServerDeleteInput!) {
      serverDelete(input: $input) {
        server {
          ...ServerRow_server
        }
        userErrors {
          code
          message
        }
      }
    }
  `);
  return (
    <li>
      <NodeLabel node={data} /> {data.status} {data.addresses.join(', ')}
      {data.activeJob && <Job id={data.activeJob.id} job={data.activeJob} />}
      <button onClick={() => refetch({}, { fetchPolicy: 'network-only' })}>Look again</button>
      {data.status !== 'DELETING' && (
        <button disabled={removing} onClick={() => remove({ variables: { input: { id: data.id } } })}>
          Delete
        </button>
      )}
    </li>
  );
}

function Job({ id, job }: { id: string; job: ServerRowJob_job$key }): React.JSX.Element {
  const data = useFragment(
    graphql`
      fragment ServerRowJob_job on Job {
        kind
        status
        progress
      }
    `,
    job,
  );
  // What is pushed goes into the store by its id, and every component that shows the job shows it.
  const config = useMemo(
    () => ({
      subscription: graphql`
        subscription ServerRowJobSubscription($id: ID!) {
          jobChanged(id: $id) {
            ...ServerRowJob_job
          }
        }
      `,
      variables: { id },
    }),
    [id],
  );
  useSubscription<ServerRowJobSubscription>(config);
  return (
    <progress value={data.progress} title={`${data.kind} ${data.status}`}>
      {Math.round(data.progress * 100)} %
    </progress>
  );
}
