package main

import (
	"net"
	"net/rpc"
	"time"

	"github.com/weircache/weir/bench/cputime"
)

// control is what another process does on request, over net/rpc.
type control struct{}

// CPU returns the CPU time that the process has used.
func (control) CPU(_ struct{}, used *time.Duration) error {
	*used = cputime.Used()
	return nil
}

// controlName is the name of what a process does on request.
const controlName = "control"

// serveControl answers requests until the process ends, and returns the address.
func serveControl(does any) (addr string, err error) {
	s := rpc.NewServer()
	if err := s.RegisterName(controlName, does); err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go s.Accept(l)
	return l.Addr().String(), nil
}
