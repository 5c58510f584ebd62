/**
 * @generated SignedSource<<69fd8f294f8740adbdac96417714e407>>
 * @lightSyntaxTransform
 */

/* tslint:disable */
/* eslint-disable */
// @ts-nocheck

import type { ReaderFragment } from 'relay-runtime';
export type JobStatus = "CANCELLED" | "FAILED" | "QUEUED" | "RUNNING" | "STUCK" | "SUCCEEDED" | "UNWINDING" | "%future added value";
import type { FragmentRefs } from "relay-runtime";
export type ServerRowJob_job$data = {
  readonly kind: string;
  readonly progress: number;
  readonly status: JobStatus;
  readonly " $fragmentType": "ServerRowJob_job";
};
export type ServerRowJob_job$key = {
  readonly " $data"?: ServerRowJob_job$data;
  readonly " $fragmentSpreads": FragmentRefs<"ServerRowJob_job">;
};

const node: ReaderFragment = {
  "argumentDefinitions": [],
  "kind": "Fragment",
  "metadata": null,
  "name": "ServerRowJob_job",
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
    }
  ],
  "type": "Job",
  "abstractKey": null
};

(node as any).hash = "aef3292292884852f7826d94da070d68";

export default node;
