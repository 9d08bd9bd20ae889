// Package sim makes traffic: the reference signals of the demo, published by real MQTT clients, and loads of numbered
// messages for benchmarks and crash tests.
//
// Signals gives the values: 125 signals at 25 Hz in the mix of kinds that leat's size figures refer to, the same for the
// same seed. Publisher sends them over MQTT 5 at QoS 1. Load sends numbered messages as fast as the broker acknowledges
// them, and tells which numbers were acknowledged, so that a test can compare them with what was stored.
//
// ResidentBytes, PeakResidentBytes and CPUTime tell what that cost the process under test (Linux only).
//
// Publisher and Load start goroutines and wait for all of them before they return. Nothing here is used by the service
// itself.
package sim
