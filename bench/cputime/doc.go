// Package cputime measures the CPU time of this process: all of it, so that what the harness itself uses counts as well.
package cputime
