package forward

import (
	"context"
	"encoding/json"

	"github.com/leat-io/leat/internal/awsclient"
	"github.com/leat-io/leat/internal/record"
)

// StatusWriter appends a status message to a stream, which may not exist: that is no error, the message is dropped. The
// error is of kind Unavailable when the same may succeed later.
type StatusWriter func(ctx context.Context, streamName string, payload []byte) error

// StatusLevel is how much a client wants to hear of its S3 tasks.
type StatusLevel int

// The levels. A client gets the messages of its own level and of those before it.
const (
	StatusError StatusLevel = iota
	StatusWarn
	StatusInfo
	StatusDebug
	StatusTrace
)

// s3Status is what became of a task, as the SDKs number it.
type s3Status int

const (
	statusSuccess s3Status = iota
	statusFailure
	statusInProgress
	statusWarning
	statusCanceled
)

// level is where a status is told: what was asked for and went well at INFO; what nobody expects at WARN, so that a
// client that asks for errors alone hears of failures only.
func (s s3Status) level() StatusLevel {
	switch s {
	case statusFailure:
		return StatusError
	case statusWarning, statusCanceled:
		return StatusWarn
	default:
		return StatusInfo
	}
}

// eventS3Task is the one type of event there is.
const eventS3Task = 0

// statusMessage is the payload of a status. Every field is always there, the context's included: programs look into them
// without asking. Of a task that could not be read the definition holds what could.
type statusMessage struct {
	EventType        int           `json:"eventType"`
	StatusLevel      StatusLevel   `json:"statusLevel"`
	Status           s3Status      `json:"status"`
	StatusContext    statusContext `json:"statusContext"`
	Message          string        `json:"message"`
	TimestampEpochMs int64         `json:"timestampEpochMs"`
}

type statusContext struct {
	Definition       s3TaskDefinition `json:"s3ExportTaskDefinition"`
	ExportIdentifier string           `json:"exportIdentifier"`
	StreamName       string           `json:"streamName"`
	SequenceNumber   int64            `json:"sequenceNumber"` // of the task's message: the task's id
}

// maxText is the most bytes of a status message's text.
const maxText = 4 << 10

// hears reports whether the client wants to hear of a status.
func (t *S3Target) hears(status s3Status) bool {
	return t.spec.StatusStream != "" && status.level() <= t.spec.StatusLevel
}

// tell writes a status, if the client wants to hear it. What cannot be written is logged and dropped, unless it may be
// written later: then the error says so.
func (t *S3Target) tell(ctx context.Context, status s3Status, sequence record.Offset, d s3TaskDefinition, text string) error {
	if !t.hears(status) {
		return nil
	}
	payload, err := json.Marshal(statusMessage{
		EventType: eventS3Task, StatusLevel: status.level(), Status: status,
		StatusContext: statusContext{d, t.spec.Identifier, t.spec.Stream, int64(sequence)},
		Message:       awsclient.FirstLine(text, maxText), TimestampEpochMs: t.tasks.now().UnixMilli(),
	})
	if err != nil {
		return record.Errorf(record.Internal, "encode the status of an S3 task: %w", err)
	}
	err = t.tasks.o.WriteStatus(ctx, t.spec.StatusStream, payload)
	if err != nil && (ctx.Err() != nil || record.KindOf(err) == record.Unavailable) {
		return record.Errorf(record.Unavailable, "write the status of an S3 task to stream %s: %w", t.spec.StatusStream, err)
	}
	if err != nil {
		t.log().Warn("status of an S3 task dropped", "status_stream", t.spec.StatusStream, "sequence", uint64(sequence),
			"error", err, "hint", record.HintOf(err))
	}
	return nil
}

// explain is an error with its hint: all that a program with a status stream sees of it.
func explain(err error) string {
	if hint := record.HintOf(err); hint != "" {
		return err.Error() + ": " + hint
	}
	return err.Error()
}
