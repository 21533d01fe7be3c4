//! The maps, and the only places where their memory is touched.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type},
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf, lpm_trie::Key},
    helpers::generated::{bpf_get_local_storage, bpf_sk_storage_get},
    macros::btf_map,
};
use egress_common::{
    Reason,
    entry::{
        AddressKeyV4, AddressKeyV6, Binding, DestinationEntry, NetworkKeyV4, NetworkKeyV6, PolicyEntry, PortSet,
        SocketState,
    },
    event::Event,
    limits::{ASKERS_MAX, NAMESPACES_MAX, POLICY_SLOTS, RING_BYTES},
    question::{Asker, AskerKey, Listener, Questions},
};

use crate::context::Socket;

/// 1 where the kernel lets a program choose the errno of a refusal (Linux 5.18, tried by the loader). A constant to the
/// verifier, so that an older kernel never looks at the call.
#[unsafe(no_mangle)]
pub(crate) static CAN_SET_ERRNO: Global<u32> = Global::new(0);

/// Which policy a cgroup has; keyed by the cgroup that the program is attached to.
#[btf_map(name = "BINDINGS")]
static BINDINGS: CgroupStorage<Binding> = CgroupStorage::new();

/// The decision and the counters of each socket.
#[btf_map(name = "SOCKETS")]
static SOCKETS: SocketStorage<SocketState> = SocketStorage::new();

/// The name servers that a socket asked.
#[btf_map(name = "QUESTIONS")]
static QUESTIONS: SocketStorage<Questions> = SocketStorage::new();

/// Where the proxy listens, by the kernel's number of the network namespace.
#[btf_map(name = "LISTENERS")]
pub(crate) static LISTENERS: HashMap<u64, Listener, { NAMESPACES_MAX as usize }, NO_PREALLOC> = HashMap::new();

/// Who asks, for the proxy.
#[btf_map(name = "ASKERS")]
pub(crate) static ASKERS: HashMap<AskerKey, Asker, { ASKERS_MAX as usize }, NO_PREALLOC> = HashMap::new();

/// The policies. A slot is filled before a binding names it and is not changed while one does.
#[btf_map(name = "POLICIES")]
pub(crate) static POLICIES: Array<PolicyEntry, { POLICY_SLOTS as usize }> = Array::new();

/// The generation of each slot: a decision counts only while it has the slot's generation.
#[btf_map(name = "GENERATIONS")]
pub(crate) static GENERATIONS: Array<u32, { POLICY_SLOTS as usize }> = Array::new();

/// Interned port sets; the loader sets the size.
#[btf_map(name = "PORT_SETS")]
pub(crate) static PORT_SETS: Array<PortSet, 1> = Array::new();

/// Allowed addresses; the loader sets the size.
#[btf_map(name = "ADDRESSES_V4")]
pub(crate) static ADDRESSES_V4: HashMap<AddressKeyV4, DestinationEntry, 1, NO_PREALLOC> = HashMap::new();

/// Allowed addresses; the loader sets the size.
#[btf_map(name = "ADDRESSES_V6")]
pub(crate) static ADDRESSES_V6: HashMap<AddressKeyV6, DestinationEntry, 1, NO_PREALLOC> = HashMap::new();

/// Networks; the loader sets the size.
#[btf_map(name = "NETWORKS_V4")]
pub(crate) static NETWORKS_V4: LpmTrie<NetworkKeyV4, DestinationEntry, 1> = LpmTrie::new();

/// Networks; the loader sets the size.
#[btf_map(name = "NETWORKS_V6")]
pub(crate) static NETWORKS_V6: LpmTrie<NetworkKeyV6, DestinationEntry, 1> = LpmTrie::new();

/// What happened, for the user half.
#[btf_map(name = "EVENTS")]
pub(crate) static EVENTS: RingBuf<Event, { RING_BYTES as usize }> = RingBuf::new();

/// Events that did not fit into the ring buffer.
#[btf_map(name = "LOST_EVENTS")]
pub(crate) static LOST_EVENTS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Refusals by reason.
#[btf_map(name = "REFUSALS")]
pub(crate) static REFUSALS: PerCpuArray<u64, { Reason::COUNT }> = PerCpuArray::new();

/// Flag of a hash that takes memory only for the entries that it has, so that room for many costs nothing.
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Key of a trie look-up.
pub(crate) type NetworkKey<K> = Key<K>;

/// The binding of the cgroup that the running program is attached to.
#[inline(always)]
pub(crate) fn binding() -> Binding {
    BINDINGS.get()
}

/// The state of a socket, if it has one.
#[inline(always)]
pub(crate) fn socket_state<'a>(socket: &Socket) -> Option<&'a mut SocketState> {
    SOCKETS.get(socket, 0)
}

/// The state of a socket, made if it has none; `None` when the kernel has no memory for it.
#[inline(always)]
pub(crate) fn socket_state_or_new<'a>(socket: &Socket) -> Option<&'a mut SocketState> {
    SOCKETS.get(socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE))
}

/// The name servers that a socket asked, if it asked any.
#[inline(always)]
pub(crate) fn questions<'a>(socket: &Socket) -> Option<&'a mut Questions> {
    QUESTIONS.get(socket, 0)
}

/// The name servers that a socket asked, none yet if it is new; `None` when the kernel has no memory for it.
#[inline(always)]
pub(crate) fn questions_or_new<'a>(socket: &Socket) -> Option<&'a mut Questions> {
    QUESTIONS.get(socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE))
}

/// Counts one up in this CPU's slot.
#[inline(always)]
pub(crate) fn count<const N: usize>(counters: &PerCpuArray<u64, N>, index: u32) {
    if let Some(counter) = counters.get_ptr_mut(index) {
        // SAFETY: the look-up returned the slot of this CPU, which is 8 bytes, aligned to 8; a program is not preempted
        // by another one of the same map on its CPU except in interrupts, where a lost increment is a lost count only.
        unsafe { *counter += 1 };
    }
}

/// Storage of a cgroup, shared by all hooks (Linux 5.9): the key is the cgroup's id alone, without the attach type.
#[repr(C)]
struct CgroupStorage<V> {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_CGROUP_STORAGE_DEPRECATED as usize],
    key: *const u64,
    value: *const V,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; 0],
}

// SAFETY: the fields are a description for the loader and are never dereferenced.
unsafe impl<V> Sync for CgroupStorage<V> {}

impl<V: Copy> CgroupStorage<V> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    #[inline(always)]
    fn get(&self) -> V {
        let map = core::ptr::from_ref(self).cast_mut().cast();
        // SAFETY: `map` is a cgroup storage, and the flags must be zero.
        let value: *const V = unsafe { bpf_get_local_storage(map, 0) }.cast();
        // SAFETY: bpf-helpers(7): the pointer is never null and is valid as long as the program runs; `Binding` is
        // two words that the user half replaces as a whole.
        unsafe { *value }
    }
}

/// Storage of a socket that a listener hands on to the connections it accepts (`BPF_F_CLONE`).
#[repr(C)]
struct SocketStorage<V> {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const V,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the fields are a description for the loader and are never dereferenced.
unsafe impl<V> Sync for SocketStorage<V> {}

impl<V> SocketStorage<V> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    #[inline(always)]
    fn get<'a>(&self, socket: &Socket, flags: u64) -> Option<&'a mut V> {
        let map = core::ptr::from_ref(self).cast_mut().cast();
        // SAFETY: `map` is a socket storage and the socket came from the running program's context or from a look-up.
        let value: *mut V = unsafe { bpf_sk_storage_get(map, socket.as_ptr(), core::ptr::null_mut(), flags) }.cast();
        // SAFETY: the storage lives at least as long as the program runs, and has the size and alignment of `V`, of which
        // every bit pattern is a value. Other CPUs may write to it meanwhile: counters are raised by atomic adds, and what
        // else is read is believed only where `report::has_one_flow` or the lock of a TCP socket excludes a second writer.
        unsafe { value.as_mut() }
    }
}
