package codec

import "io"

// source is the decoder's input: an io.Reader and io.ByteScanner over a slice.
//
// ReadByte refuses to read the first byte of a time's contents as a code. msgpack/v5 v5.3.6 does that where
// it expects a map: it skips an extension's header and reads the contents, which the check has not seen, as a
// map. A type that decodes itself can expect a map anywhere, so the check alone cannot catch this.
type source struct {
	b    []byte
	i    int
	exts []int // offsets at which contents of times begin, ascending
	next int   // the first of exts that is not before i
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	if s.i >= len(s.b) && len(p) > 0 {
		return 0, io.EOF
	}
	n := copy(p, s.b[s.i:])
	s.i += n
	return n, nil
}

// ReadByte implements io.ByteReader.
func (s *source) ReadByte() (byte, error) {
	if s.i >= len(s.b) {
		return 0, io.EOF
	}
	for s.next < len(s.exts) && s.exts[s.next] < s.i {
		s.next++
	}
	if s.next < len(s.exts) && s.exts[s.next] == s.i {
		return 0, badValue("an extension before byte %d where something else was due", s.i)
	}
	c := s.b[s.i]
	s.i++
	return c, nil
}

// UnreadByte implements io.ByteScanner.
func (s *source) UnreadByte() error {
	if s.i == 0 {
		return io.EOF
	}
	s.i--
	return nil
}
