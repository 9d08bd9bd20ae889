package config

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/leat-io/leat/internal/record"
)

// Logging is about the program's own lines, not about the durable log.
type Logging struct {
	// Level is the least important kind of line that is written: debug, info, warn or error.
	Level string `yaml:"level"`
	// Format is text or json.
	Format string `yaml:"format"`
	// File is where lines go besides standard error; a relative name lies in the data directory. Empty means nowhere.
	File string `yaml:"file"`
	// DiskLimit is the most bytes that the file and its predecessors (<file>.1) take together.
	DiskLimit int64 `yaml:"disk_limit"`
}

// minLogLimit is the smallest disk limit that leaves room for two useful files.
const minLogLimit = 64 << 10

// DefaultLogging returns the defaults.
func DefaultLogging() Logging { return Logging{Level: "info", Format: "text", DiskLimit: 20 << 20} }

// Validate says which key cannot be, and what to write instead.
func (l Logging) Validate() error {
	if _, err := l.SlogLevel(); err != nil {
		return record.Errorf(record.Invalid, "logging.level: %q", l.Level).WithHint("use debug, info, warn or error")
	}
	if l.Format != "text" && l.Format != "json" {
		return record.Errorf(record.Invalid, "logging.format: %q", l.Format).WithHint("use text or json")
	}
	if l.File != "" && l.DiskLimit < minLogLimit {
		return record.Errorf(record.Invalid, "logging.disk_limit: %s", FormatSize(l.DiskLimit)).
			WithHint("use at least %s", FormatSize(minLogLimit))
	}
	return nil
}

// SlogLevel is Level as slog has it.
func (l Logging) SlogLevel() (slog.Level, error) {
	var level slog.Level
	err := level.UnmarshalText([]byte(l.Level))
	return level, err
}

// Uploader is the document's log-manager block, as it stands there. What makes sense without a cloud is honoured: the
// level and the disk limit, for leat's own log file.
type Uploader struct {
	System     UploaderLog            `yaml:"systemLogsConfiguration"`
	Components map[string]UploaderLog `yaml:"componentLogsConfigurationMap"`
	List       []UploaderLog          `yaml:"componentLogsConfiguration"`
}

// UploaderLog is the block of one component.
type UploaderLog struct {
	Component   string `yaml:"componentName"`
	Level       string `yaml:"minimumLogLevel"`
	Limit       int64  `yaml:"diskSpaceLimit"`
	LimitUnit   string `yaml:"diskSpaceLimitUnit"`
	DeleteAfter bool   `yaml:"deleteLogFileAfterCloudUpload"`
	Upload      bool   `yaml:"uploadToCloudWatch"`
	Pattern     string `yaml:"logFileRegex"`
	Directory   string `yaml:"logFileDirectoryPath"`
	Multiline   string `yaml:"multiLineStartPattern"`
}

// LogFile is the log file that the document's block asks for without naming one.
const LogFile = "logs/leat.log"

// apply takes over what the block says about this component: the only one, or the one called leat.
func (u Uploader) apply(l *Logging) error {
	all := maps.Clone(u.Components)
	if all == nil {
		all = map[string]UploaderLog{}
	}
	for _, c := range u.List {
		all[c.Component] = c
	}
	if len(all) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(all))
	block, ok := all["leat"]
	if !ok && len(all) > 1 {
		return record.Errorf(record.Invalid, "logsUploaderConfiguration: several components (%s)", strings.Join(names, ", ")).
			WithHint("call the one that leat stands for \"leat\", or leave the others out")
	}
	if !ok {
		block = all[names[0]]
	}
	if block.Level != "" {
		l.Level = strings.ToLower(block.Level)
	}
	if block.Limit > 0 {
		limit, err := ParseSize(fmt.Sprintf("%d%s", block.Limit, orDefault(block.LimitUnit, "KB")))
		if err != nil {
			return record.Errorf(record.Invalid, "logsUploaderConfiguration: diskSpaceLimitUnit: %q", block.LimitUnit).
				WithHint("use KB, MB or GB")
		}
		l.DiskLimit = limit
		l.File = orDefault(l.File, LogFile)
	}
	return nil
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
