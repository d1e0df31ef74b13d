module github.com/modelavg/modelavg/cmd/modelavg

go 1.26.0

require (
	github.com/modelavg/modelavg v0.0.0
	github.com/spf13/cobra v1.10.2
	github.com/vbauerster/mpb/v8 v8.16.2
)
