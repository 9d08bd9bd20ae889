// Package wire is the codec of the Stream Manager's protocol (AWS IoT Greengrass, version 1.1.0): frames, messages,
// statuses, and what a stream's definition may say. It is pure: no sockets, no goroutines, no state.
//
// # Form
//
// A connection begins with ConnectVersion in each direction. Then it carries frames:
//
//	int32   length of what follows, big-endian, 1 to 2^30
//	int8    operation
//	bytes   one CBOR map (RFC 8949) with text keys
//
// # Guarantees
//
//   - What the official clients send is decoded: maps, arrays and strings of definite and of indefinite length, whole
//     numbers as floats, null for what is absent, keys that are not known. Values beyond int64 are clamped.
//   - What is encoded kills none of them: one map of definite length, no null, no tag, no number above 2^53-1, no status
//     above 18, text in UTF-8, an errorMessage exactly when the request failed.
//   - No input makes it panic, or allocate more than a small multiple of the bytes that have arrived.
//   - A request whose id can be had can be answered, whatever else is wrong with it, and the stream of frames stays in
//     step.
//
// # Duties of the caller
//
// A frame leaves in one write, with ConnectVersion before the first. Payloads of Append and of messages that were read
// alias the buffer that they were decoded from. Decode looks at the form only: Validate a definition before it is used, and
// Resolve it before it is stored.
//
// # Two ways to decode, and why there is only one
//
// fxamacker/cbor checks that a payload is well-formed and not nested too deeply, and encodes what is not on the path of a
// message. The fields are taken by a small decoder of this package: it does not copy payloads, it names the field that
// is wrong, and it finds the id in half a request, which decoding into structs by reflection does not do.
//
// # What it does not do
//
// JSON inside of messages (S3 tasks, their statuses, SiteWise entries) is package export/forward's.
package wire
