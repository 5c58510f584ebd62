/**
 * @generated SignedSource<<e272117cf63c40a85947270580ff68c2>>
 * @lightSyntaxTransform
 */

/* tslint:disable */
/* eslint-disable */
// @ts-nocheck

import type { ReaderFragment } from 'relay-runtime';
export type ServerStatus = "ACTIVE" | "BUILDING" | "CRASHED" | "DELETING" | "ERROR" | "PAUSED" | "STOPPED" | "SUSPENDED" | "UNKNOWN" | "VERIFY_RESIZE" | "%future added value";
import type { FragmentRefs } from "relay-runtime";
export type ServerRow_server$data = {
  readonly activeJob: {
    readonly id: string;
    readonly " $fragmentSpreads": FragmentRefs<"ServerRowJob_job">;
  } | null | undefined;
  readonly addresses: ReadonlyArray<string>;
  readonly id: string;
  readonly status: ServerStatus;
  readonly " $fragmentSpreads": FragmentRefs<"NodeLabel_node">;
  readonly " $fragmentType": "ServerRow_server";
};
export type ServerRow_server$key = {
  readonly " $data"?: ServerRow_server$data;
  readonly " $fragmentSpreads": FragmentRefs<"ServerRow_server">;
};

import ServerRowQuery_graphql from './ServerRowQuery.graphql';

const node: ReaderFragment = (function(){
var v0 = {
  "alias": null,
  "args": null,
  "kind": "ScalarField",
  "name": "id",
  "storageKey": null
};
return {
  "argumentDefinitions": [],
  "kind": "Fragment",
  "metadata": {
    "refetch": {
      "connection": null,
      "fragmentPathInResult": [
        "node"
      ],
      "operation": ServerRowQuery_graphql,
      "identifierInfo": {
        "identifierField": "id",
        "identifierQueryVariableName": "id"
      }
    }
  },
  "name": "ServerRow_server",
  "selections": [
    (v0/*:: as any*/),
    {
      "alias": null,
      "args": null,
      "kind": "ScalarField",
      "name": "status",
      "storageKey": null
    },
    {
      "alias": null,
      "args": null,
      "kind": "ScalarField",
      "name": "addresses",
      "storageKey": null
    },
    {
      "alias": null,
      "args": null,
      "concreteType": "Job",
      "kind": "LinkedField",
      "name": "activeJob",
      "plural": false,
      "selections": [
        (v0/*:: as any*/),
        {
          "args": null,
          "kind": "FragmentSpread",
          "name": "ServerRowJob_job"
        }
      ],
      "storageKey": null
    },
    {
      "args": null,
      "kind": "FragmentSpread",
      "name": "NodeLabel_node"
    }
  ],
  "type": "Server",
  "abstractKey": null
};
})();

(node as any).hash = "270e01efd12d527258d6248c5fdf9650";

export default node;
