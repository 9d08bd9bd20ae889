//go:build !linux && !darwin

package main

import "os"

// terminalWidth knows no terminals here: output is what it would be in a file.
func terminalWidth(*os.File) (columns int, ok bool) { return 0, false }
