//go:build !linux

package sqlworker

import "errors"

// LandlockABI is 0: only Linux has Landlock.
func LandlockABI() int { return 0 }

func confine(l limits) error {
	return &sandboxError{errors.New("this system has no Landlock")}
}

func confined(limits) error { return errors.New("this system has no Landlock") }

func second() bool { return false }

func seal() error { return nil }
