//! Guards for kernel tests: namespaces, servers, an observer of the wire, and the `egress` binary under test.
//!
//! Every guard removes what it made when it is dropped, and what it made disappears with the process too, because
//! namespaces are held by file descriptors and servers die with the thread that started them. No guard shares a name or
//! a path with another, so tests run side by side. A guard that cannot be made is an error: no test is skipped.
//!
//! The namespaces have no way out: a packet that no server takes is dropped. The addresses that look public belong to
//! the test alone.
//!
//! The tests need root and the programs that `cargo xtask setup` installs.

pub mod cgroup;
pub mod clients;
pub mod command;
pub mod deadline;
pub mod egress;
pub mod frame;
pub mod machine;
pub mod names;
pub mod netns;
pub mod network;
pub mod policy;
pub mod probe;
pub mod record;
pub mod servers;
pub mod wire;
