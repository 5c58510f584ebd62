// Types for the documents in src/, from the committed schema alone: no gateway has to run for a build.
import type { CodegenConfig } from '@graphql-codegen/cli';

const config: CodegenConfig = {
  schema: '../../../resolvers/schema.graphql',
  documents: ['src/**/*.ts', '!src/gql/**'],
  emitLegacyCommonJSImports: false,
  generates: {
    'src/gql/': {
      preset: 'client',
      presetConfig: {
        fragmentMasking: { unmaskFunctionName: 'read' },
        // Also writes src/gql/persisted-documents.json: what STRATOGRAPH_TRUSTED_DOCUMENTS takes.
        persistedDocuments: { hashAlgorithm: 'sha256' },
      },
      config: {
        // A scalar that is missing here is an error, never `any`.
        strictScalars: true,
        scalars: {
          BigInt: { input: 'number | string', output: 'number' },
          CIDR: 'string',
          DateTime: 'string',
          Decimal: 'string',
          ID: 'string',
          IPAddress: 'string',
          JSON: 'unknown',
          MacAddress: 'string',
        },
        useTypeImports: true,
      },
    },
  },
};

export default config;
