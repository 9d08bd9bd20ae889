package wire

// Status is how a request ended. A client dies of a status above UnknownOperation.
type Status int

// The statuses. Those from UnsupportedConnectVersion to FailedToConnect are for the handshake only.
const (
	Success                    Status = 0
	UnknownFailure             Status = 1
	Unauthorized               Status = 2
	InvalidRequest             Status = 3
	RequestPayloadTooLarge     Status = 4
	ResourceNotFound           Status = 5
	ServerTimeout              Status = 6
	ResponsePayloadTooLarge    Status = 7
	UnsupportedConnectVersion  Status = 8
	UnexpectedOperation        Status = 9
	UnsupportedProtocolVersion Status = 10
	InvalidProtocolVersion     Status = 11
	FailedToConnect            Status = 12
	NotEnoughMessages          Status = 13
	MessageStoreReadError      Status = 14
	OutOfMemory                Status = 15
	UpdateFailed               Status = 16
	UpdateNotAllowed           Status = 17
	UnknownOperation           Status = 18
)

// Int is a whole number of the protocol. Clients send floats for some of them; values beyond the range are clamped.
type Int int64
