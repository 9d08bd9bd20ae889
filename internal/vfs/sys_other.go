//go:build !linux

package vfs

import "os"

func syncData(f *os.File) error { return f.Sync() }

// Space is not known on this system; it reports a disk without limits.
func (d *Dir) Space() (Space, error) { return Space{Total: 1 << 62, Free: 1 << 62}, nil }

// Lock opens name; this system gets no protection against a second process.
func (d *Dir) Lock(name string) (*File, error) { return d.OpenFile(name, os.O_RDWR|os.O_CREATE) }
