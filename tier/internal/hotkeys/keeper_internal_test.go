package hotkeys

import (
	"errors"
	"io/fs"
	"syscall"
	"testing"
)

func TestSameTrouble(t *testing.T) {
	full := func(name string) error { return &fs.PathError{Op: "write", Path: name, Err: syscall.ENOSPC} }
	denied := &fs.PathError{Op: "open", Path: "a", Err: syscall.EACCES}
	for _, x := range []struct {
		name        string
		err, before error
		want        bool
	}{
		{"the first", full("a"), nil, false},
		{"the first, from no system call", fs.ErrClosed, nil, false},
		{"the same", full("a"), full("a"), true},
		{"of another file", full("b"), errors.Join(full("a"), errors.New("more")), true},
		{"another cause", denied, full("a"), false},
		{"from no system call", fs.ErrClosed, full("a"), false},
		{"from a system call at last", full("a"), fs.ErrClosed, false},
		{"both from no system call", fs.ErrClosed, fs.ErrClosed, true},
	} {
		if got := sameTrouble(x.err, x.before); got != x.want {
			t.Errorf("%s: %v after %v counts as the same: %v", x.name, x.err, x.before, got)
		}
	}
}
