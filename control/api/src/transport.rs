//! How the services travel: mutual TLS between nodes, a unix socket on the node.
