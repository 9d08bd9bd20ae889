//go:build linux

package e2e_test

// idleAddr is set in the environment of the test binary when it is to hold idle connections to that address.
const idleAddr = "LEAT_TEST_IDLE_ADDR"

func holdIdle(addr string) int { return 0 }
