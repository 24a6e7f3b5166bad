//go:build !unix

package main

import "syscall"

func lesser(...string) (*syscall.SysProcAttr, error) { return nil, nil }
