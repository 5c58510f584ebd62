"""`stratograph demo`: the main job of a cloud, done before your eyes through the public API, and undone again.

Tenant, network, security group, image, volume, keypair, a server with user data, its console, its address, its meter;
then everything is deleted and it is shown that nothing is left. Only the client speaks to the cloud here.
"""
