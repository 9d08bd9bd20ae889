//go:build race

package mqtt_test

// raceFactor is what the race detector makes of memory figures.
const raceFactor = 4
