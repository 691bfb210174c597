# longlag on a CPU. The container runs `make demo`, about four minutes on two cores:
#
#   docker build --tag longlag .
#   docker run --rm --volume "$PWD/runs:/longlag/runs" longlag
#   docker run --rm --interactive --tty longlag bash    # then: longlag --help
FROM python:3.13-slim

# make for the Makefile, git for the commit in every record, g++ for the native loop of a cell.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /longlag
COPY . .
RUN make env
ENV PATH="/longlag/.venv/bin:$PATH"

CMD ["make", "demo"]
