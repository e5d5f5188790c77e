//! Protobuf services and their conversions to and from `mesh-types`.
