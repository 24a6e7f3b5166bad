package codec

// FlagTrace, of a get: Trace counts. On other requests the bit is FlagRelay.
const FlagTrace = FlagRelay

// Trace is what a tracer must know of a piece of work to connect another one with it, as W3C Trace Context
// has it: 16 bytes of trace id, 8 of span id, 1 of flags. The zero Trace is none.
type Trace [25]byte

func (d *decoder) trace() (t Trace) {
	if len(d.b) < len(t) {
		d.fail("cut short")
		return t
	}
	copy(t[:], d.b)
	d.b = d.b[len(t):]
	return t
}
