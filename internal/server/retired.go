package server

import (
	"fmt"
	"slices"

	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/meta"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"go.yaml.in/yaml/v3"
)

// A rule that is taken out of the configuration leaves a stream behind, with what came since the last file. Rows that
// were acknowledged must still reach the lake, and be seen by queries: so each start writes down its rules, and the next
// one goes on exporting the streams of those that are gone, as they said. Nothing new comes into such a stream.

// bucketRules keeps each rule that ever ran, by name, as YAML with every default written out.
const bucketRules meta.Bucket[string] = "ingest.rules"

// openRetired adds exports for the streams of rules that are gone, and writes down those that run.
func (s *Server) openRetired() error {
	known, err := s.rememberRules()
	if err != nil {
		return err
	}
	for _, info := range s.streams.List(ingest.StreamPrefix) {
		if slices.ContainsFunc(s.feeds, func(f feed) bool { return f.id == info.ID }) {
			continue
		}
		err := s.addRetired(info, known)
		if records := int64(info.Bounds.Next - info.Bounds.First); err != nil && records > 0 {
			s.log.Warn("stream of an ingest rule that is no longer configured", "stream", string(info.Name), "records", records,
				"bytes", info.Bounds.Bytes, "error", err, "hint", "its records stay until they are exported: configure the rule again")
		} else if records > 0 {
			s.log.Info("what a rule that is no longer configured has left is still exported", "stream", string(info.Name),
				"records", records, "bytes", info.Bounds.Bytes)
		}
	}
	return nil
}

func (s *Server) rememberRules() (known map[string]string, err error) {
	known = map[string]string{}
	err = s.rules.Update(func(tx *meta.Tx) error {
		for e, err := range bucketRules.Scan(tx, "", "") {
			if err != nil {
				return err
			}
			known[e.Key] = e.Value
		}
		for _, f := range s.feeds {
			text, err := yaml.Marshal(f.rule)
			if err != nil {
				return fmt.Errorf("encode rule %s: %w", f.rule.Name, err)
			}
			if known[f.rule.Name] == string(text) {
				continue
			}
			if err := bucketRules.Put(tx, f.rule.Name, string(text)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("write down the ingest rules: %w", err)
	}
	return known, nil
}

// addRetired exports a stream as its rule said when it last ran.
func (s *Server) addRetired(info stream.Info, known map[string]string) error {
	name := string(info.Name)[len(ingest.StreamPrefix):]
	text, ok := known[name]
	if !ok {
		return record.Errorf(record.NotFound, "nothing is known about rule %s", name)
	}
	var rule ingest.Rule
	if err := yaml.Unmarshal([]byte(text), &rule); err != nil {
		return fmt.Errorf("read rule %s: %w", name, err)
	}
	if !s.cfg.Store.TablePrefix && slices.ContainsFunc(s.feeds, func(f feed) bool { return f.table.Name != rule.Table }) {
		return record.Errorf(record.Conflict, "table %s would share its keys with another one", rule.Table)
	}
	f, err := s.newFeed(rule, info.ID)
	if err != nil {
		return err
	}
	if err := s.addExport(f); err != nil {
		return err
	}
	s.feeds = append(s.feeds, f)
	return nil
}
