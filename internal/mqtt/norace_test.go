//go:build !race

package mqtt_test

const raceFactor = 1
