package wire

// Operation is a frame's operation code: what its payload is.
type Operation int8

// The operations of the protocol, and leat's own behind them.
const (
	OpUnknown          Operation = 0
	OpConnect          Operation = 1
	OpCreate           Operation = 2
	OpDelete           Operation = 3
	OpAppend           Operation = 4
	OpRead             Operation = 5
	OpConnectResponse  Operation = 6
	OpCreateResponse   Operation = 7
	OpDeleteResponse   Operation = 8
	OpAppendResponse   Operation = 9
	OpReadResponse     Operation = 10
	OpList             Operation = 11
	OpListResponse     Operation = 12
	OpDescribe         Operation = 13
	OpDescribeResponse Operation = 14
	OpUpdate           Operation = 15
	OpUpdateResponse   Operation = 16
	OpUnknownError     Operation = 17 // the answer to a request code that the server does not know

	// Extension of leat, offered as ExtensionAppendBatch: several messages in one request, appended as one unit.
	OpAppendBatch         Operation = 64
	OpAppendBatchResponse Operation = 65
)

// ExtensionAppendBatch is the name under which a ConnectResponse offers OpAppendBatch.
const ExtensionAppendBatch = "leat.appendBatch"

// Connect is the first request of a connection.
type Connect struct {
	RequestID                      string   `cbor:"requestId"`
	ProtocolVersion                string   `cbor:"protocolVersion"`
	OtherSupportedProtocolVersions []string `cbor:"otherSupportedProtocolVersions"`
	SDKVersion                     string   `cbor:"sdkVersion"`
	AuthToken                      string   `cbor:"authToken,omitempty"` // "" when absent: the Java client sends an empty one
}

// ConnectResponse answers Connect.
type ConnectResponse struct {
	Response
	ProtocolVersion           string   `cbor:"protocolVersion"`
	SupportedProtocolVersions []string `cbor:"supportedProtocolVersions"`
	ServerVersion             string   `cbor:"serverVersion"`
	ClientIdentifier          string   `cbor:"clientIdentifier"`
	Extensions                []string `cbor:"extensions,omitempty"` // leat's own; clients ignore keys they do not know
}

// Response is the part that all responses have; alone it answers Create, Update and Delete, and what failed.
type Response struct {
	RequestID    string `cbor:"requestId"`
	Status       Status `cbor:"status"`
	ErrorMessage string `cbor:"errorMessage,omitempty"`
}

// CreateRequest and UpdateRequest carry a complete definition.
type (
	// CreateRequest makes a stream.
	CreateRequest struct {
		RequestID  string                   `cbor:"requestId"`
		Definition *MessageStreamDefinition `cbor:"definition"`
	}
	// UpdateRequest replaces a stream's definition.
	UpdateRequest struct {
		RequestID  string                   `cbor:"requestId"`
		Definition *MessageStreamDefinition `cbor:"definition"`
	}
	// DeleteRequest removes a stream with all it holds.
	DeleteRequest struct {
		RequestID string `cbor:"requestId"`
		Name      string `cbor:"name"`
	}
	// DescribeRequest asks for a stream's definition and state.
	DescribeRequest struct {
		RequestID string `cbor:"requestId"`
		Name      string `cbor:"name"`
	}
	// ListRequest asks for the names of all streams.
	ListRequest struct {
		RequestID string `cbor:"requestId"`
	}
	// AppendRequest appends one message. Payload aliases the frame.
	AppendRequest struct {
		RequestID string `cbor:"requestId"`
		Name      string `cbor:"name"`
		Payload   []byte `cbor:"payload"`
	}
	// AppendBatchRequest appends several. Payloads alias the frame.
	AppendBatchRequest struct {
		RequestID string   `cbor:"requestId"`
		Name      string   `cbor:"name"`
		Payloads  [][]byte `cbor:"payloads"`
	}
	// ReadRequest reads messages; note streamName where the others say name.
	ReadRequest struct {
		RequestID  string               `cbor:"requestId"`
		StreamName string               `cbor:"streamName"`
		Options    *ReadMessagesOptions `cbor:"readMessagesOptions,omitempty"`
	}
)

// ReadMessagesOptions says which messages a read wants. Absent values are nil.
type ReadMessagesOptions struct {
	DesiredStartSequenceNumber *Int `cbor:"desiredStartSequenceNumber,omitempty"`
	MinMessageCount            *Int `cbor:"minMessageCount,omitempty"`
	MaxMessageCount            *Int `cbor:"maxMessageCount,omitempty"`
	ReadTimeoutMillis          *Int `cbor:"readTimeoutMillis,omitempty"`
}

// The responses that carry something.
type (
	// AppendResponse tells the number of the message, or of the first of a batch.
	AppendResponse struct {
		Response
		SequenceNumber int64 `cbor:"sequenceNumber"`
	}
	// ReadResponse holds what was read.
	ReadResponse struct {
		Response
		Messages []Message `cbor:"messages"`
	}
	// ListResponse holds the names; never nil on the wire.
	ListResponse struct {
		Response
		Streams []string `cbor:"streams"`
	}
	// DescribeResponse holds one stream.
	DescribeResponse struct {
		Response
		Info *MessageStreamInfo `cbor:"messageStreamInfo,omitempty"`
	}
)

// Message is a message as readers get it.
type Message struct {
	StreamName     string `cbor:"streamName" json:"streamName"`
	SequenceNumber int64  `cbor:"sequenceNumber" json:"sequenceNumber"`
	IngestTime     int64  `cbor:"ingestTime" json:"ingestTime"` // milliseconds since 1970 UTC, when the server took it
	Payload        []byte `cbor:"payload" json:"payload"`
}

// MessageStreamInfo is the state of a stream.
type MessageStreamInfo struct {
	Definition     *MessageStreamDefinition `cbor:"definition"`
	StorageStatus  StorageStatus            `cbor:"storageStatus"`
	ExportStatuses []ExportStatus           `cbor:"exportStatuses,omitempty"`
}

// StorageStatus is the extent of a stream: an empty one that never held anything has 0, -1, 0.
type StorageStatus struct {
	OldestSequenceNumber int64 `cbor:"oldestSequenceNumber"`
	NewestSequenceNumber int64 `cbor:"newestSequenceNumber"`
	TotalBytes           int64 `cbor:"totalBytes"`
}

// ExportStatus is where one export stands.
type ExportStatus struct {
	ExportConfigIdentifier     string `cbor:"exportConfigIdentifier"`
	LastExportedSequenceNumber int64  `cbor:"lastExportedSequenceNumber"` // -1 before the first
	LastExportTime             int64  `cbor:"lastExportTime,omitempty"`   // of the last attempt, milliseconds since 1970
	ErrorMessage               string `cbor:"errorMessage,omitempty"`     // of the last failed attempt
	ExportedBytesFromStream    int64  `cbor:"exportedBytesFromStream"`
	ExportedMessagesCount      int64  `cbor:"exportedMessagesCount"`
}

// StrategyOnFull is what happens when a stream has reached its maxSize.
type StrategyOnFull int64

// The strategies.
const (
	RejectNewData       StrategyOnFull = 0
	OverwriteOldestData StrategyOnFull = 1
)

// Persistence is where a stream keeps its messages.
type Persistence int64

// The places.
const (
	File   Persistence = 0
	Memory Persistence = 1
)

// MessageStreamDefinition is what a client says about a stream. Nil is absent; Resolve fills in the defaults.
type MessageStreamDefinition struct {
	Name              string            `cbor:"name"`
	MaxSize           *Int              `cbor:"maxSize,omitempty"`
	StreamSegmentSize *Int              `cbor:"streamSegmentSize,omitempty"`
	TimeToLiveMillis  *Int              `cbor:"timeToLiveMillis,omitempty"`
	StrategyOnFull    *Int              `cbor:"strategyOnFull,omitempty"`
	Persistence       *Int              `cbor:"persistence,omitempty"`
	FlushOnWrite      *bool             `cbor:"flushOnWrite,omitempty"`
	ExportDefinition  *ExportDefinition `cbor:"exportDefinition,omitempty"`
}

// ExportDefinition lists a stream's exports by kind. The capital of IotSitewise is the protocol's.
type ExportDefinition struct {
	HTTP           []ExportConfig `cbor:"http,omitempty"`
	IoTAnalytics   []ExportConfig `cbor:"iotAnalytics,omitempty"`
	Kinesis        []ExportConfig `cbor:"kinesis,omitempty"`
	IoTSiteWise    []ExportConfig `cbor:"IotSitewise,omitempty"`
	S3TaskExecutor []ExportConfig `cbor:"s3TaskExecutor,omitempty"`
}

// ExportConfig is one export of any kind: the fields that all have, then those of each kind. Validate checks that a kind
// has its required ones; what belongs to another kind is dropped by Resolve.
type ExportConfig struct {
	Identifier          string `cbor:"identifier"`
	BatchSize           *Int   `cbor:"batchSize,omitempty"`
	BatchIntervalMillis *Int   `cbor:"batchIntervalMillis,omitempty"`
	Priority            *Int   `cbor:"priority,omitempty"`
	StartSequenceNumber *Int   `cbor:"startSequenceNumber,omitempty"`
	Disabled            *bool  `cbor:"disabled,omitempty"`

	KinesisStreamName string `cbor:"kinesisStreamName,omitempty"` // Kinesis

	IoTChannel     string `cbor:"iotChannel,omitempty"`     // IoT Analytics
	IoTMsgIDPrefix string `cbor:"iotMsgIdPrefix,omitempty"` // IoT Analytics

	URI          string `cbor:"uri,omitempty"`          // HTTP
	ExportFormat *Int   `cbor:"exportFormat,omitempty"` // HTTP: 0 RAW_NOT_BATCHED, 1 JSON_BATCHED

	SizeThresholdForMultipartUploadBytes *Int          `cbor:"sizeThresholdForMultipartUploadBytes,omitempty"` // S3
	StatusConfig                         *StatusConfig `cbor:"statusConfig,omitempty"`                         // S3
}

// StatusConfig says where the S3 task executor reports, and how much.
type StatusConfig struct {
	StatusLevel      *Int   `cbor:"statusLevel,omitempty"` // 0 ERROR … 4 TRACE; absent: 2 INFO
	StatusStreamName string `cbor:"statusStreamName,omitempty"`
}

// ExportKind is a kind of export.
type ExportKind string

// The kinds, in the order in which ExportDefinition.All yields them.
const (
	KindHTTP         ExportKind = "http"
	KindIoTAnalytics ExportKind = "iotanalytics"
	KindKinesis      ExportKind = "kinesis"
	KindSiteWise     ExportKind = "sitewise"
	KindS3           ExportKind = "s3"
)
