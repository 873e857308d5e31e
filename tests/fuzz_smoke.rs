//! A short run of the fuzz targets with the stable compiler: their seeds, changed at random, always
//! in the same ways. `scripts/fuzz` runs the same entry points under libFuzzer.

#[path = "fuzz/entry_points.rs"]
mod entry_points;

use std::path::Path;

const ROUNDS: usize = 20_000;

#[test]
fn ring_descriptors_never_panic() {
    run("ring_descriptor", entry_points::ring_descriptor);
}

#[test]
fn facts_never_panic() {
    run("fact_codec", entry_points::fact_codec);
}

#[test]
fn http_bodies_never_panic() {
    run("http_decoder", entry_points::http_decoder);
}

/// A seed that no longer decodes has fallen behind a change of the format.
#[test]
fn the_seeds_of_the_codec_are_facts() {
    for (name, seed) in seeds("fact_codec") {
        let fact = proto::codec::decode::<proto::control::Fact>(&seed);
        assert!(fact.is_ok(), "{name}: {fact:?}");
    }
}

fn run(target: &str, entry_point: fn(&[u8])) {
    let seeds = seeds(target);
    let mut random = Random(0x0b01_4ead);
    for (_, seed) in &seeds {
        entry_point(seed);
    }
    for _ in 0..ROUNDS {
        let mut bytes = seeds[random.below(seeds.len())].1.clone();
        for _ in 0..=random.below(6) {
            mutate(&mut bytes, &mut random);
        }
        // A panic names no input: this one shows it and how to get it again.
        if std::panic::catch_unwind(|| entry_point(&bytes)).is_err() {
            panic!("{target} fails on {bytes:?}");
        }
    }
}

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = std::fs::read_dir(folder).expect("the seeds are in the checkout");
    let mut seeds: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("a readable folder").path();
            (path.display().to_string(), std::fs::read(&path).expect("a readable seed"))
        })
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{target} has no seeds");
    seeds
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    match random.below(7) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, *random.pick(b"[]{}\",:-e0\x00\x01\x7f\x80\xfb\xfc\xfd\xff")),
        2 => {
            let end = (at + random.below(32)).min(bytes.len());
            bytes.extend_from_within(at..end);
        }
        3 => {
            bytes.drain(at..(at + random.below(16)).min(bytes.len()));
        }
        4 => overwrite(bytes, at, &random.pick(&NUMBERS).to_le_bytes()),
        5 => overwrite(bytes, at, &[random.next().to_le_bytes()[0]]),
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

/// Numbers at which arithmetic changes its mind.
const NUMBERS: [u64; 8] =
    [0, 1, 63, 0xffff, u32::MAX as u64, i64::MAX as u64, u64::MAX - 63, u64::MAX];

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    for (byte, new) in bytes[at..].iter_mut().zip(with) {
        *byte = *new;
    }
}

/// splitmix64: the same numbers on every machine and with every version of every crate.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a size is 64 bits");
        usize::try_from(self.next() % bound).expect("less than a size")
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
