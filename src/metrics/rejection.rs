//! Every decision to refuse a peer or to end its connection because of what it did or did not do.

macro_rules! rejections {
    ($($name:ident $wire:literal $meaning:literal;)*) => {
        /// Why a peer was refused or closed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Rejection { $(#[doc = $meaning] $name,)* }

        impl Rejection {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name, as a label.
            pub const fn name(self) -> &'static str { match self { $(Self::$name => $wire,)* } }

            /// What the peer did.
            pub const fn meaning(self) -> &'static str { match self { $(Self::$name => $meaning,)* } }
        }
    };
}

rejections! {
    ConnectionLimit "connection_limit" "one connection more than `limits.connections_max`: closed";
    Http "http" "HTTP on the broker's port: closed";
    HandshakeMissing "handshake_missing" "something else before the handshake: closed";
    HandshakeTimeout "handshake_timeout" "no whole handshake in `timeouts.handshake_ms`: closed";
    HandshakeInvalid "handshake_invalid" "a handshake that cannot be read or asks for too little: closed";
    UnsupportedVersion "unsupported_version" "no protocol version in common: closed";
    Idle "idle" "nothing for `timeouts.idle_ms`: closed";
    StalledSending "stalled_sending" "stopped or trickled inside a frame for `timeouts.stall_ms`: closed";
    StalledReading "stalled_reading" "took nothing for `timeouts.stall_ms`: closed";
    FrameTooLarge "frame_too_large" "a frame larger than granted: closed";
    FrameMalformed "frame_malformed" "a frame header that is none: closed";
    RequestMalformed "request_malformed" "a request whose bytes are not those of its kind: refused";
    RequestUnknown "request_unknown" "a kind of request that this broker does not know: refused";
    BatchCorrupt "batch_corrupt" "a batch that fails its checksum or is cut short: refused";
    BatchTooLarge "batch_too_large" "a batch larger than `limits.batch_bytes_max`: refused";
    BatchInvalid "batch_invalid" "a batch whose content breaks a rule: refused";
    Decompression "decompression" "a batch that does not decompress to the size it states: refused";
    UnsupportedCodec "unsupported_codec" "a batch in a format or compression not known: refused";
    QueueFull "queue_full" "a request for which there was no room in time: refused";
    LimitReached "limit_reached" "more of something than its limit allows: refused";
    CreditIgnored "credit_ignored" "credit for a subscription that is not there, or less than before: ignored";
}
