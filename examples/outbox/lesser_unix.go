//go:build unix

package main

import (
	"errors"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// lesser returns the attributes for running the server. If this process is root's, the server runs as the user postgres
// or nobody, and lesser gives that user the paths. The server does not receive the terminal's Ctrl-C: the program ends
// it when it has finished.
func lesser(paths ...string) (*syscall.SysProcAttr, error) {
	as := &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() != 0 {
		return as, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody: run this as another user")
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		if err := os.Chown(path, int(uid), int(gid)); err != nil {
			return nil, err
		}
	}
	as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return as, nil
}
