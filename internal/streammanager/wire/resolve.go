package wire

// Resolve returns the definition as it is stored and described: a copy with the defaults filled in, without the fields that
// belong to another kind of export, and without exportDefinition when there is no export. What stays absent means
// something: no timeToLiveMillis, that messages do not expire; no batchSize or batchIntervalMillis, see the forwarder.
// Numbers above MaxNumber become that: they could not be described. d must be valid.
func (d *MessageStreamDefinition) Resolve() *MessageStreamDefinition {
	size := d.MaxSize.Or(DefaultMaxSize)
	r := &MessageStreamDefinition{
		Name:              d.Name,
		MaxSize:           NewInt(clamp(size)),
		StreamSegmentSize: d.StreamSegmentSize.withDefault(min(DefaultSegmentSize, size)),
		TimeToLiveMillis:  d.TimeToLiveMillis.copy(),
		StrategyOnFull:    d.StrategyOnFull.copy(),
		Persistence:       d.Persistence.withDefault(int64(File)),
		FlushOnWrite:      boolOr(d.FlushOnWrite),
	}
	var all ExportDefinition
	for kind, e := range d.ExportDefinition.All() {
		list := all.kind(kind)
		*list = append(*list, e.resolve(kind))
		r.ExportDefinition = &all
	}
	return r
}

// kind is the list of the exports of a kind.
func (e *ExportDefinition) kind(k ExportKind) *[]ExportConfig {
	switch k {
	case KindHTTP:
		return &e.HTTP
	case KindIoTAnalytics:
		return &e.IoTAnalytics
	case KindKinesis:
		return &e.Kinesis
	case KindSiteWise:
		return &e.IoTSiteWise
	}
	return &e.S3TaskExecutor
}

func (e *ExportConfig) resolve(kind ExportKind) ExportConfig {
	r := ExportConfig{
		Identifier: e.Identifier,
		Priority:   e.Priority.withDefault(LowestPriority),
		Disabled:   boolOr(e.Disabled),
	}
	if kind != KindS3 {
		r.BatchSize = e.BatchSize.copy()
		r.BatchIntervalMillis = e.BatchIntervalMillis.copy()
		r.StartSequenceNumber = e.StartSequenceNumber.withDefault(0)
	}
	switch kind {
	case KindHTTP:
		r.URI = e.URI
		r.ExportFormat = e.ExportFormat.withDefault(0)
	case KindIoTAnalytics:
		r.IoTChannel, r.IoTMsgIDPrefix = e.IoTChannel, e.IoTMsgIDPrefix
	case KindKinesis:
		r.KinesisStreamName = e.KinesisStreamName
	case KindS3:
		r.SizeThresholdForMultipartUploadBytes = e.SizeThresholdForMultipartUploadBytes.withDefault(DefaultMultipartThreshold)
		if s := e.StatusConfig; s != nil {
			r.StatusConfig = &StatusConfig{StatusLevel: s.StatusLevel.withDefault(defaultStatusLevel), StatusStreamName: s.StatusStreamName}
		}
	}
	return r
}

// defaultStatusLevel is INFO.
const defaultStatusLevel = 2

// copy is a clamped copy of i; nil of nil.
func (i *Int) copy() *Int {
	if i == nil {
		return nil
	}
	return NewInt(clamp(int64(*i)))
}

func (i *Int) withDefault(def int64) *Int { return NewInt(clamp(i.Or(def))) }

func boolOr(b *bool) *bool {
	v := b != nil && *b
	return &v
}
