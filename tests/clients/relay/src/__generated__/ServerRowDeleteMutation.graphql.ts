/**
 * @generated SignedSource<<0e2abc1ce27fd1fef001b60a6ec532ff>>
 * @lightSyntaxTransform
 */

/* tslint:disable */
/* eslint-disable */
// @ts-nocheck

import type { ConcreteRequest } from 'relay-runtime';
import type { FragmentRefs } from "relay-runtime";
export type UserErrorCode = "BUSY" | "CANCELLED" | "CONFLICT" | "FORBIDDEN" | "HYPERVISOR_ERROR" | "IDEMPOTENCY_KEY_MISMATCH" | "IMAGE_REFUSED" | "INTERNAL" | "INVALID" | "INVALID_STATE" | "IN_USE" | "LOCKED_OUT" | "NOT_FOUND" | "NO_ADDRESS_LEFT" | "NO_VALID_HOST" | "QUOTA_EXCEEDED" | "RATE_LIMITED" | "STALE_VERSION" | "UNAUTHENTICATED" | "UNSUPPORTED" | "%future added value";
export type ServerDeleteInput = {
  id: string;
  idempotencyKey?: string | null | undefined;
};
export type ServerRowDeleteMutation$variables = {
  input: ServerDeleteInput;
};
export type ServerRowDeleteMutation$data = {
  readonly serverDelete: {
    readonly server: {
      readonly " $fragmentSpreads": FragmentRefs<"ServerRow_server">;
    } | null | undefined;
    readonly userErrors: ReadonlyArray<{
      readonly code: UserErrorCode;
      readonly message: string;
    }>;
  };
};
export type ServerRowDeleteMutation = {
  response: ServerRowDeleteMutation$data;
  variables: ServerRowDeleteMutation$variables;
};

const node: ConcreteRequest = (function(){
var v0 = [
  {
    "defaultValue": null,
    "kind": "LocalArgument",
    "name": "input"
  }
],
v1 = [
  {
    "kind": "Variable",
    "name": "input",
    "variableName": "input"
  }
],
v2 = {
  "alias": null,
  "args": null,
  "kind": "ScalarField",
  "name": "code",
  "storageKey": null
},
v3 = {
  "alias": null,
  "args": null,
  "kind": "ScalarField",
  "name": "message",
  "storageKey": null
},
v4 = {
  "alias": null,
  "args": null,
  "kind": "ScalarField",
  "name": "id",
  "storageKey": null
},
v5 = {
  "alias": null,
  "args": null,
  "kind": "ScalarField",
  "name": "status",
  "storageKey": null
},
v6 = {
  "alias": null,
  "args": null,
  "kind": "ScalarField",
  "name": "__typename",
  "storageKey": null
},
v7 = [
  {
    "alias": null,
    "args": null,
    "kind": "ScalarField",
    "name": "name",
    "storageKey": null
  }
];
return {
  "fragment": {
    "argumentDefinitions": (v0/*:: as any*/),
    "kind": "Fragment",
    "metadata": null,
    "name": "ServerRowDeleteMutation",
    "selections": [
      {
        "alias": null,
        "args": (v1/*:: as any*/),
        "concreteType": "ServerDeletePayload",
        "kind": "LinkedField",
        "name": "serverDelete",
        "plural": false,
        "selections": [
          {
            "alias": null,
            "args": null,
            "concreteType": "Server",
            "kind": "LinkedField",
            "name": "server",
            "plural": false,
            "selections": [
              {
                "args": null,
                "kind": "FragmentSpread",
                "name": "ServerRow_server"
              }
            ],
            "storageKey": null
          },
          {
            "alias": null,
            "args": null,
            "concreteType": null,
            "kind": "LinkedField",
            "name": "userErrors",
            "plural": true,
            "selections": [
              (v2/*:: as any*/),
              (v3/*:: as any*/)
            ],
            "storageKey": null
          }
        ],
        "storageKey": null
      }
    ],
    "type": "Mutation",
    "abstractKey": null
  },
  "kind": "Request",
  "operation": {
    "argumentDefinitions": (v0/*:: as any*/),
    "kind": "Operation",
    "name": "ServerRowDeleteMutation",
    "selections": [
      {
        "alias": null,
        "args": (v1/*:: as any*/),
        "concreteType": "ServerDeletePayload",
        "kind": "LinkedField",
        "name": "serverDelete",
        "plural": false,
        "selections": [
          {
            "alias": null,
            "args": null,
            "concreteType": "Server",
            "kind": "LinkedField",
            "name": "server",
            "plural": false,
            "selections": [
              (v4/*:: as any*/),
              (v5/*:: as any*/),
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
                  (v4/*:: as any*/),
                  {
                    "alias": null,
                    "args": null,
                    "kind": "ScalarField",
                    "name": "kind",
                    "storageKey": null
                  },
                  (v5/*:: as any*/),
                  {
                    "alias": null,
                    "args": null,
                    "kind": "ScalarField",
                    "name": "progress",
                    "storageKey": null
                  }
                ],
                "storageKey": null
              },
              {
                "kind": "InlineFragment",
                "selections": [
                  (v6/*:: as any*/),
                  {
                    "kind": "InlineFragment",
                    "selections": (v7/*:: as any*/),
                    "type": "Server",
                    "abstractKey": null
                  },
                  {
                    "kind": "InlineFragment",
                    "selections": (v7/*:: as any*/),
                    "type": "Volume",
                    "abstractKey": null
                  }
                ],
                "type": "Node",
                "abstractKey": "__isNode"
              }
            ],
            "storageKey": null
          },
          {
            "alias": null,
            "args": null,
            "concreteType": null,
            "kind": "LinkedField",
            "name": "userErrors",
            "plural": true,
            "selections": [
              (v6/*:: as any*/),
              (v2/*:: as any*/),
              (v3/*:: as any*/)
            ],
            "storageKey": null
          }
        ],
        "storageKey": null
      }
    ]
  },
  "params": {
    "cacheID": "cd5733311857afca4bd5e853903a408e",
    "id": null,
    "metadata": {},
    "name": "ServerRowDeleteMutation",
    "operationKind": "mutation",
    "text": "mutation ServerRowDeleteMutation(\n  $input: ServerDeleteInput!\n) {\n  serverDelete(input: $input) {\n    server {\n      ...ServerRow_server\n      id\n    }\n    userErrors {\n      __typename\n      code\n      message\n    }\n  }\n}\n\nfragment NodeLabel_node on Node {\n  __isNode: __typename\n  __typename\n  id\n  ... on Server {\n    name\n  }\n  ... on Volume {\n    name\n  }\n}\n\nfragment ServerRowJob_job on Job {\n  kind\n  status\n  progress\n}\n\nfragment ServerRow_server on Server {\n  id\n  status\n  addresses\n  activeJob {\n    id\n    ...ServerRowJob_job\n  }\n  ...NodeLabel_node\n}\n"
  }
};
})();

(node as any).hash = "0f4cb20874bd6a168dd67f296fc407fd";

export default node;
