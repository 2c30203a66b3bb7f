"""The only room that changes what it observes: intent first, preconditions on every act, verification after."""
