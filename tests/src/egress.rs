//! The binary under test.
