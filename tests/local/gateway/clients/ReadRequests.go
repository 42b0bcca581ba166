// Reads requests as Go's servers do: hexadecimal bytes of one connection on each line in, JSON of what was read out.
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
)

type request struct {
	Method string `json:"method"`
	Host   string `json:"host"`
	Target string `json:"target"`
	Body   string `json:"body"`
}

func main() {
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		data, _ := hex.DecodeString(line[:len(line)-1])
		found := []request{}
		reader := bufio.NewReader(bytes.NewReader(data))
		for {
			read, err := http.ReadRequest(reader)
			if err != nil {
				break
			}
			body, err := io.ReadAll(read.Body)
			if err != nil {
				break
			}
			found = append(found, request{read.Method, read.Host, read.RequestURI, hex.EncodeToString(body)})
		}
		answer, _ := json.Marshal(found)
		os.Stdout.Write(append(answer, '\n'))
	}
}
