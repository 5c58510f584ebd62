/**
 * @generated SignedSource<<79f7d12e3377e0bf197a9aa10ceadc78>>
 * @lightSyntaxTransform
 */

/* tslint:disable */
/* eslint-disable */
// @ts-nocheck

import type { ConcreteRequest } from 'relay-runtime';
import type { FragmentRefs } from "relay-runtime";
export type ServerRowJobSubscription$variables = {
  id: string;
};
export type ServerRowJobSubscription$data = {
  readonly jobChanged: {
    readonly " $fragmentSpreads": FragmentRefs<"ServerRowJob_job">;
  };
};
export type ServerRowJobSubscription = {
  response: ServerRowJobSubscription$data;
  variables: ServerRowJobSubscription$variables;
};

const node: ConcreteRequest = (function(){
var v0 = [
  {
    "defaultValue": null,
    "kind": "LocalArgument",
    "name": "id"
  }
],
v1 = [
  {
    "kind": "Variable",
    "name": "id",
    "variableName": "id"
  }
];
return {
  "fragment": {
    "argumentDefinitions": (v0/*:: as any*/),
    "kind": "Fragment",
    "metadata": null,
    "name": "ServerRowJobSubscription",
    "selections": [
      {
        "alias": null,
        "args": (v1/*:: as any*/),
        "concreteType": "Job",
        "kind": "LinkedField",
        "name": "jobChanged",
        "plural": false,
        "selections": [
          {
            "args": null,
            "kind": "FragmentSpread",
            "name": "ServerRowJob_job"
          }
        ],
        "storageKey": null
      }
    ],
    "type": "Subscription",
    "abstractKey": null
  },
  "kind": "Request",
  "operation": {
    "argumentDefinitions": (v0/*:: as any*/),
    "kind": "Operation",
    "name": "ServerRowJobSubscription",
    "selections": [
      {
        "alias": null,
        "args": (v1/*:: as any*/),
        "concreteType": "Job",
        "kind": "LinkedField",
        "name": "jobChanged",
        "plural": false,
        "selections": [
          {
            "alias": null,
            "args": null,
            "kind": "ScalarField",
            "name": "kind",
            "storageKey": null
          },
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
            "name": "progress",
            "storageKey": null
          },
          {
            "alias": null,
            "args": null,
            "kind": "ScalarField",
            "name": "id",
            "storageKey": null
          }
        ],
        "storageKey": null
      }
    ]
  },
  "params": {
    "cacheID": "c78fd29288dff25ccc20689a2a998227",
    "id": null,
    "metadata": {},
    "name": "ServerRowJobSubscription",
    "operationKind": "subscription",
    "text": "subscription ServerRowJobSubscription(\n  $id: ID!\n) {\n  jobChanged(id: $id) {\n    ...ServerRowJob_job\n    id\n  }\n}\n\nfragment ServerRowJob_job on Job {\n  kind\n  status\n  progress\n}\n"
  }
};
})();

(node as any).hash = "fad14d40e0d20f01f80192782aae613d";

export default node;
