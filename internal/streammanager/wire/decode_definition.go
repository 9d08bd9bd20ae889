package wire

import "github.com/leat-io/leat/internal/record"

// MarshalDefinition is d as it is stored: CBOR in RFC 8949's core deterministic form, so that equal definitions are equal
// bytes. A later release reads what an earlier one wrote, and the other way round: keys that a release does not know are
// ignored by it.
func MarshalDefinition(d *MessageStreamDefinition) ([]byte, error) {
	b, err := appendAny(nil, d)
	if err != nil {
		return nil, record.Errorf(record.Internal, "encode the definition of stream %q: %w", d.Name, err)
	}
	return b, nil
}

// UnmarshalDefinition reads what MarshalDefinition wrote. The error is Corrupt. The values are not validated.
func UnmarshalDefinition(b []byte) (*MessageStreamDefinition, error) {
	err := wellFormed(b)
	var def *MessageStreamDefinition
	if err == nil {
		d := decoder{data: b}
		d.definition(&def)
		d.require(def != nil, "the definition")
		err = d.err
	}
	if err != nil {
		return nil, record.Errorf(record.Corrupt, "decode a stream's definition: %w", err)
	}
	return def, nil
}

func (d *decoder) definition(dst **MessageStreamDefinition) {
	*dst = nil
	if d.null() {
		return
	}
	m := &MessageStreamDefinition{}
	*dst = m
	for c := d.enterMap(); ; {
		key, ok := d.field(&c)
		if !ok {
			return
		}
		switch string(key) {
		case "name":
			d.text(&m.Name)
		case "maxSize":
			d.int(&m.MaxSize)
		case "streamSegmentSize":
			d.int(&m.StreamSegmentSize)
		case "timeToLiveMillis":
			d.int(&m.TimeToLiveMillis)
		case "strategyOnFull":
			d.int(&m.StrategyOnFull)
		case "persistence":
			d.int(&m.Persistence)
		case "flushOnWrite":
			d.bool(&m.FlushOnWrite)
		case "exportDefinition":
			if m.ExportDefinition = nil; !d.null() {
				m.ExportDefinition = &ExportDefinition{}
				d.exportDefinition(m.ExportDefinition)
			}
		default:
			d.skip(maxNesting)
		}
	}
}

func (d *decoder) exportDefinition(e *ExportDefinition) {
	for c := d.enterMap(); ; {
		key, ok := d.field(&c)
		if !ok {
			return
		}
		if list := e.list(string(key)); list != nil {
			d.exports(list)
		} else {
			d.skip(maxNesting)
		}
	}
}

// list is the list of an ExportDefinition that the wire calls key, or nil.
func (e *ExportDefinition) list(key string) *[]ExportConfig {
	switch key {
	case "http":
		return &e.HTTP
	case "iotAnalytics":
		return &e.IoTAnalytics
	case "kinesis":
		return &e.Kinesis
	case "IotSitewise":
		return &e.IoTSiteWise
	case "s3TaskExecutor":
		return &e.S3TaskExecutor
	}
	return nil
}

func (d *decoder) exports(dst *[]ExportConfig) {
	*dst = nil
	if d.null() {
		return
	}
	for c := d.enter(majorArray, "an array of maps"); d.element(&c, maxExports); {
		var e ExportConfig
		d.export(&e)
		*dst = append(*dst, e)
	}
}

func (d *decoder) export(e *ExportConfig) {
	for c := d.enterMap(); ; {
		key, ok := d.field(&c)
		if !ok {
			return
		}
		switch string(key) {
		case "identifier":
			d.text(&e.Identifier)
		case "batchSize":
			d.int(&e.BatchSize)
		case "batchIntervalMillis":
			d.int(&e.BatchIntervalMillis)
		case "priority":
			d.int(&e.Priority)
		case "startSequenceNumber":
			d.int(&e.StartSequenceNumber)
		case "disabled":
			d.bool(&e.Disabled)
		default:
			d.ownField(key, e)
		}
	}
}

// ownField takes a field that only some kinds of export have. Whether this one may is for Resolve.
func (d *decoder) ownField(key []byte, e *ExportConfig) {
	switch string(key) {
	case "kinesisStreamName":
		d.text(&e.KinesisStreamName)
	case "iotChannel":
		d.text(&e.IoTChannel)
	case "iotMsgIdPrefix":
		d.text(&e.IoTMsgIDPrefix)
	case "uri":
		d.text(&e.URI)
	case "exportFormat":
		d.int(&e.ExportFormat)
	case "sizeThresholdForMultipartUploadBytes":
		d.int(&e.SizeThresholdForMultipartUploadBytes)
	case "statusConfig":
		if e.StatusConfig = nil; !d.null() {
			e.StatusConfig = &StatusConfig{}
			d.statusConfig(e.StatusConfig)
		}
	default:
		d.skip(maxNesting)
	}
}

func (d *decoder) statusConfig(s *StatusConfig) {
	for c := d.enterMap(); ; {
		key, ok := d.field(&c)
		if !ok {
			return
		}
		switch string(key) {
		case "statusLevel":
			d.int(&s.StatusLevel)
		case "statusStreamName":
			d.text(&s.StatusStreamName)
		default:
			d.skip(maxNesting)
		}
	}
}
