package codec

// A Call is a request that is under way to another member while its sender does other things.
type Call struct {
	Req  *Request
	Resp *Response
	// Done gets the Call when it has ended. It must have room for it.
	Done chan<- *Call
	// Withdraw, set by who sends the Call, takes it back. false: it has ended, and Done gets it, or has it.
	Withdraw func() bool
	// Err is valid when the Call has ended: nil, or why there is no answer.
	Err error
	// Index is the sender's own.
	Index int
}
