all: one two
	@echo all of $^
%:
	@echo making $@
fails:
	@exit 3
