// Package archtest holds the tests that keep the code as docs/architecture.md draws it: imports point down along named
// edges, one package comment per package, and no long tail of files, functions and interfaces.
package archtest
