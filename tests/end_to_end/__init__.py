"""End to end: real processes, real servers, a real hypervisor, and only the public API between them and the test."""
