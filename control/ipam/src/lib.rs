//! Pure pools.
