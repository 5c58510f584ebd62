// The main jobs as ready operations: the tabs of a first visit, and the "Open an example" menu. The documents are files
// of their own in ../examples, so that a test can check each against the schema.
import createServer from "../examples/CreateServer.graphql";
import createServerVariables from "../examples/CreateServer.json";
import deleteServer from "../examples/DeleteServer.graphql";
import deleteServerVariables from "../examples/DeleteServer.json";
import followJob from "../examples/FollowJob.graphql";
import followJobVariables from "../examples/FollowJob.json";
import planServer from "../examples/PlanServer.graphql";
import planServerVariables from "../examples/PlanServer.json";
import choices from "../examples/Choices.graphql";
import servers from "../examples/Servers.graphql";
import signedIn from "../examples/SignedIn.graphql";
import watchEvents from "../examples/WatchEvents.graphql";

export interface Example {
  readonly title: string;
  readonly query: string;
  readonly variables: string | null;
}

function example(title: string, query: string, variables?: object): Example {
  return { title, query, variables: variables ? JSON.stringify(variables, null, 2) : null };
}

export const EXAMPLES: readonly Example[] = [
  example("Who is signed in", signedIn),
  example("Flavors, images, networks", choices),
  example("Servers and their parts", servers),
  example("Plan a server", planServer, planServerVariables),
  example("Create a server", createServer, createServerVariables),
  example("Follow a job", followJob, followJobVariables),
  example("Watch events", watchEvents),
  example("Delete a server", deleteServer, deleteServerVariables),
];
