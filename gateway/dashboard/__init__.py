"""The web pages of the gateway: a landing page and the GraphQL playground, served from files built ahead of time."""
