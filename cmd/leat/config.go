package main

import (
	"fmt"
)

type configCmd struct {
	Show  configShowCmd  `cmd:"" help:"Print the configuration that would run, with every default, secrets hidden."`
	Check configCheckCmd `cmd:"" help:"Say whether the configuration is right."`
}

type configShowCmd struct {
	settings
}

// Run prints the effective configuration.
func (c configShowCmd) Run(t terminal) error {
	l, err := c.load(t)
	if err != nil {
		return err
	}
	text, err := l.Show()
	if err != nil {
		return err
	}
	_, err = t.out.Write(text)
	return err
}

type configCheckCmd struct {
	settings
}

// Run checks the configuration.
func (c configCheckCmd) Run(t terminal) error {
	l, err := c.load(t)
	if err != nil {
		return err
	}
	for _, w := range l.Warnings {
		fmt.Fprintf(t.err, "warning: %s\n", w)
	}
	_, err = fmt.Fprintln(t.out, "the configuration is right")
	return err
}
