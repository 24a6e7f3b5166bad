package codec

// A Call is a request to another member that runs in the background while its sender does other work.
type Call struct {
	Req  *Request
	Resp *Response
	// Done receives the Call when it has ended. The channel must have room for it.
	Done chan<- *Call
	// Withdraw, which the sender of the Call sets, cancels it. It returns false if the Call has already ended
	// and Done has received or will receive it.
	Withdraw func() bool
	// Err is valid once the Call has ended: nil, or the reason for the missing answer.
	Err error
	// Index is for the caller's own use.
	Index int
}
