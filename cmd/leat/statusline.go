package main

import (
	"fmt"
	"io"
	"sync"
)

// statusLine is one line that is written over in place on a terminal, and line after line elsewhere. It is safe for
// concurrent use, because log lines come from other goroutines.
type statusLine struct {
	inPlace bool

	mu   sync.Mutex // guards what follows
	out  io.Writer
	text string
}

func newStatusLine(out io.Writer) *statusLine {
	_, ok := width(out)
	return &statusLine{out: out, inPlace: ok}
}

// show replaces the line.
func (s *statusLine) show(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.inPlace {
		fmt.Fprintln(s.out, text)
		return
	}
	s.text = text
	s.draw()
}

// draw writes the line, cut to the terminal's width as it is now. The caller holds mu.
func (s *statusLine) draw() {
	columns, ok := width(s.out)
	line := []rune(s.text)
	if ok && len(line) >= columns {
		line = append(line[:max(columns-2, 0)], '…')
	}
	fmt.Fprintf(s.out, "\r\x1b[K%s", string(line))
}

// clear removes the line, so that others can be printed.
func (s *statusLine) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inPlace && s.text != "" {
		fmt.Fprint(s.out, "\r\x1b[K")
		s.text = ""
	}
}

// above returns a writer for other lines: each appears above the status line.
func (s *statusLine) above(w io.Writer) io.Writer { return aboveLine{s, w} }

type aboveLine struct {
	line *statusLine
	w    io.Writer
}

func (a aboveLine) Write(p []byte) (int, error) {
	s := a.line
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.inPlace || s.text == "" {
		return a.w.Write(p)
	}
	fmt.Fprint(s.out, "\r\x1b[K")
	n, err := a.w.Write(p)
	s.draw()
	return n, err
}
