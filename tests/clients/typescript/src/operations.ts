// Every document that this client sends. codegen reads them here, types them, and puts them into the manifest.
import { graphql } from './gql/index.js';

export const ServerFields = graphql(`
  fragment ServerFields on Server {
    id
    name
    status
    addresses
    hypervisor
    flavor {
      name
    }
    ports {
      macAddress
      ipAddresses
    }
  }
`);

export const JobFields = graphql(`
  fragment JobFields on Job {
    id
    kind
    status
    progress
    steps {
      name
      status
    }
    error {
      code
      message
    }
  }
`);

export const SignIn = graphql(`
  mutation SignIn($input: SessionCreateInput!) {
    sessionCreate(input: $input) {
      token
      expiresAt
      userErrors {
        code
        message
        path
      }
    }
  }
`);

export const SignOut = graphql(`
  mutation SignOut {
    sessionRevoke(input: {}) {
      userErrors {
        code
        message
        path
      }
    }
  }
`);

export const Ground = graphql(`
  query Ground($flavor: String!) {
    viewer {
      user {
        name
      }
    }
    flavors(filter: { name: $flavor }) {
      nodes {
        id
        name
        vcpus
        ramMib
      }
    }
  }
`);

export const CreateTenant = graphql(`
  mutation CreateTenant($input: TenantCreateInput!) {
    tenantCreate(input: $input) {
      tenant {
        id
        name
      }
      userErrors {
        code
        message
        path
      }
    }
  }
`);

export const DeleteTenant = graphql(`
  mutation DeleteTenant($input: TenantDeleteInput!) {
    tenantDelete(input: $input) {
      tenant {
        id
      }
      userErrors {
        code
        message
        path
      }
    }
  }
`);

export const CreateNetwork = graphql(`
  mutation CreateNetwork($input: NetworkCreateInput!) {
    networkCreate(input: $input) {
      network {
        id
      }
      userErrors {
        code
        message
        path
      }
    }
  }
`);

export const CreateSubnet = graphql(`
  mutation CreateSubnet($input: SubnetCreateInput!) {
    subnetCreate(input: $input) {
      subnet {
        id
        cidr
        gateway
      }
      job {
        id
      }
      userErrors {
        code
        message
        path
      }
    }
  }
`);

export const DeleteNetwork = graphql(`
  mutation DeleteNetwork($input: NetworkDeleteInput!) {
    networkDelete(input: $input) {
      job {
        id
      }
      userErrors {
        code
        message
        path
      }
    }
  }
`);

export const CreateImage = graphql(`
  mutation CreateImage($input: ImageCreateInput!) {
    imageCreate(input: $input) {
      image {
        id
        upload {
          url
        }
      }
      userErrors {
        code
        message
        path
      }
    }
  }
`);

export const ImageState = graphql(`
  query ImageState($id: ID!) {
    image(id: $id) {
      status
      statusReason
      activeJob {
        id
      }
    }
  }
`);

export const DeleteImage = graphql(`
  mutation DeleteImage($input: ImageDeleteInput!) {
    imageDelete(input: $input) {
      job {
        id
      }
      userErrors {
        code
        message
        path
      }
    }
  }
`);

export const PlanServer = graphql(`
  query PlanServer($input: ServerCreateInput!) {
    serverCreatePlan(input: $input) {
      possible
      quota {
        resource
        used
        limit
      }
      userErrors {
        code
        message
        path
      }
    }
  }
`);

export const CreateServer = graphql(`
  mutation CreateServer($input: ServerCreateInput!) {
    serverCreate(input: $input) {
      server {
        ...ServerFields
      }
      job {
        ...JobFields
      }
      userErrors {
        code
        message
        path
        ... on QuotaExceeded {
          resource
          limit
          used
        }
      }
    }
  }
`);

export const ServerState = graphql(`
  query ServerState($id: ID!) {
    server(id: $id) {
      ...ServerFields
    }
  }
`);

export const DeleteServer = graphql(`
  mutation DeleteServer($input: ServerDeleteInput!) {
    serverDelete(input: $input) {
      job {
        id
      }
      userErrors {
        code
        message
        path
      }
    }
  }
`);

export const JobChanged = graphql(`
  subscription JobChanged($id: ID!) {
    jobChanged(id: $id) {
      ...JobFields
    }
  }
`);
