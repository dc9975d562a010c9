//! Which partition a key belongs to.
//!
//! `partition = XXH64(key, seed 0) mod partitions`. XXH64 is specified at
//! <https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>; test vectors stand in
//! `docs/PROTOCOL.md` and below. The rule is part of the protocol: publishers in different
//! languages must agree, or the order within a key is lost.

use crate::ids::Partition;

/// The partition, out of `partitions` (taken as 1 when 0), that records with this key go to.
///
/// ```
/// use falcon_protocol::partitioner::partition_for_key;
/// assert_eq!(partition_for_key(b"N14228", 8).0, 2);
/// ```
pub fn partition_for_key(key: &[u8], partitions: u32) -> Partition {
    let hash = xxhash_rust::xxh64::xxh64(key, 0);
    let partition = hash % u64::from(partitions.max(1));
    Partition(u32::try_from(partition).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_xxh64_with_seed_zero() {
        // Vectors of the xxHash specification and of other implementations.
        assert_eq!(xxhash_rust::xxh64::xxh64(b"", 0), 0xEF46_DB37_51D8_E999);
        assert_eq!(xxhash_rust::xxh64::xxh64(b"a", 0), 0xD24E_C4F1_A98C_6E5B);
        assert_eq!(xxhash_rust::xxh64::xxh64(b"abc", 0), 0x44BC_2CF5_AD77_0999);
    }

    #[test]
    fn every_key_has_one_partition_and_all_are_used() {
        let mut seen = [0_u32; 8];
        for key in 0..8_000_u32 {
            let partition = partition_for_key(format!("order-{key}").as_bytes(), 8);
            seen[partition.0 as usize] += 1;
        }
        assert!(
            seen.iter().all(|n| (800..1_200).contains(n)),
            "uneven: {seen:?}"
        );
        assert_eq!(partition_for_key(b"x", 0), Partition(0));
    }
}
