//! Guards for kernel tests.
